"""The jobs, all that runs on Ray, and the `ganad` command line over them."""
