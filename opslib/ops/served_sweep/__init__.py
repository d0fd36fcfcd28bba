"""The sweep as served: what `pillops serve` is told of workers, threads and batching, raced."""
