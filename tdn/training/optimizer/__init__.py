"""The optimizer: SOAP, flat parameters, schedule, average of weights."""
