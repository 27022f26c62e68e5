"""Other people's data: layouts read as MM data sets, classes, checks before training, a look into the files."""
