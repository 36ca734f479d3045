"""주문팀: catalogue, orders, payments, the customer's status view and the timeline."""
