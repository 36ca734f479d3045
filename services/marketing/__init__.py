"""마케팅팀: coupons."""
