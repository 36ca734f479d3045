-- A database for each team of the shop on a laptop, its owner for migrations and its user for everything else, with the
-- rights that docs/data.md gives them. The passwords are no secrets: the server is reached from the laptop's own
-- containers alone. In production they are somebody's secrets, and '%' is the network that the shop is in.

CREATE DATABASE street12_order CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE USER 'street12_order'@'%' IDENTIFIED BY 'laptop-order';
GRANT SELECT, INSERT, UPDATE, DELETE ON street12_order.* TO 'street12_order'@'%';
CREATE USER 'street12_order_owner'@'%' IDENTIFIED BY 'laptop-order-owner';
GRANT ALL ON street12_order.* TO 'street12_order_owner'@'%';

CREATE DATABASE street12_delivery CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE USER 'street12_delivery'@'%' IDENTIFIED BY 'laptop-delivery';
GRANT SELECT, INSERT, UPDATE, DELETE ON street12_delivery.* TO 'street12_delivery'@'%';
CREATE USER 'street12_delivery_owner'@'%' IDENTIFIED BY 'laptop-delivery-owner';
GRANT ALL ON street12_delivery.* TO 'street12_delivery_owner'@'%';

CREATE DATABASE street12_marketing CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE USER 'street12_marketing'@'%' IDENTIFIED BY 'laptop-marketing';
GRANT SELECT, INSERT, UPDATE, DELETE ON street12_marketing.* TO 'street12_marketing'@'%';
CREATE USER 'street12_marketing_owner'@'%' IDENTIFIED BY 'laptop-marketing-owner';
GRANT ALL ON street12_marketing.* TO 'street12_marketing_owner'@'%';
