"""Purpose flow: which personal data reaches which use, column by column, and whether the use's purpose covers it.

Knows neither Dagster nor the service: it is handed compiled SQL and what columns and uses declare.
"""
