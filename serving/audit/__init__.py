"""What an auditor asks: from a person, an export or a model to the consents that allowed it, decided again, with evidence."""
