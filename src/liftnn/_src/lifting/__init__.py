"""The one mechanism: split the arguments, transform a pure function, merge the results back."""
