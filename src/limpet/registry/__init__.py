"""registry: the distribution protocol, spoken as a client. What a layer means is not known here."""
