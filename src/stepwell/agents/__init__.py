"""What runs inside an attempt, by kind of agent."""
