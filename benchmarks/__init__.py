"""Every published number is made here, by one command each, with its peer or limit in the same run."""
