"""What clients meet: the socket, its requests and their answers, the commands, the HTTP port."""
