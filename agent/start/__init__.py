"""What a start finds and puts together: what earlier processes left, the nodes, the addresses."""
