"""Random programs, run with liftnn's transforms and in plain Python: results, effects and identity must agree."""
