"""The desk that answers requests of people about their own data: who is meant, and how a request goes on."""
