"""Native formats: one module per source, each turning a day's arrays into the text its system would write."""
