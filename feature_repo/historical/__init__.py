"""Historical reads: what was known of an entity at a time, for training; personal rows only under consent, then and now.

`joining.py` joins, `consenting.py` says which rows may be learned from, `spans.py` keeps standing over time,
`reading.py` puts them together, `offline_store.py` offers it to Feast.
"""
