"""The implementation of liftnn; what is public is imported by `liftnn` itself."""
