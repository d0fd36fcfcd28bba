"""Operations library behind PillSnap's notebooks, scripts and command line.

An operation is a function that takes a configuration and returns a record. Notebooks tell its
story, scripts schedule it, the command line runs it. Importing this package loads none of torch,
onnxruntime, pandas or matplotlib.
"""

__version__ = "0.1.0"
