"""What a controller must be able to show: the record of processing activities, the log of what flowed, the measures, the requests.

Everything is read from what the home keeps and runs; nothing is decided here and nothing is written.
"""
