"""Object graphs: Variables and Modules, their static description, and the walk between the two."""
