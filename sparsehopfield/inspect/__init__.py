"""Ways to look into a memory: certificates, explanations, reports, figures."""
