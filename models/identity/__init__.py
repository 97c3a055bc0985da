"""Who is who: source identities normalised, compared, linked and joined into customers, each step explained."""
