"""INT8 variants: made, held against float32, timed, kept and promoted."""
