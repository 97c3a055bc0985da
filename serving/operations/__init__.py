"""How the service is kept: who may ask how often, what is counted, traced and written down, whether it is ready."""
