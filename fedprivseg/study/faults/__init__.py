"""What goes wrong in a simulation, because its scenario says so: on the wire, at a site, with the server's machine."""
