"""상품배송팀: stock, stock movements, deliveries."""
