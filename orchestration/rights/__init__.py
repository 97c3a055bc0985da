"""The rights of a person over everything the home holds: found by what tables declare, handed out, corrected, erased, searched for again."""
