"""get_config() of every data set."""
