"""What a segment did: whoever it went out to beside whoever was held out, with intervals, or the word that there is not enough."""
