"""Ways to inspect a memory: certificates, explanations, reports, figures."""
