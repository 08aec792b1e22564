"""Random programs: eager against compiled, gradients against differences, failures made small."""
