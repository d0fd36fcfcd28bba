"""The benchmark: both engines at each batch size, behind a parity gate."""
