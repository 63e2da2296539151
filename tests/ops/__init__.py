"""One file an operation: values against loops, derivatives against differences, errors."""
