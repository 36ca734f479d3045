-- Databases and users of the shop and of its engine, on MySQL 8.4: run it as the server's administrator, as often as
-- you like. What is there stays as it is, passwords too. Where a team has a server of its own, run its part there.
--
-- There are no passwords in here. A user who is new is locked, until
--
--   ALTER USER 'street12_order'@'%' IDENTIFIED BY '…' ACCOUNT UNLOCK;
--
-- (`openssl rand -base64 32 | tr '+/' '-_'` needs no encoding in a URL). To change it while the shop works:
--
--   ALTER USER 'street12_order'@'%' IDENTIFIED BY 'the new one' RETAIN CURRENT PASSWORD;    -- now both are good
--   … put the new URL into the secret, restart API and workers, see that nobody comes with the old one …
--   ALTER USER 'street12_order'@'%' DISCARD OLD PASSWORD;
--
-- Each user comes over TLS or not at all, and from anywhere: who may reach the server, the network says.
-- It grants, and takes nothing away: what a user may besides, SHOW GRANTS tells.

-- order: its workers and the API, its migrations, its people.
CREATE DATABASE IF NOT EXISTS street12_order CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE USER IF NOT EXISTS 'street12_order'@'%' ACCOUNT LOCK;
CREATE USER IF NOT EXISTS 'street12_order_owner'@'%' ACCOUNT LOCK;
CREATE USER IF NOT EXISTS 'street12_order_reader'@'%' ACCOUNT LOCK;
ALTER USER 'street12_order'@'%' REQUIRE SSL;
ALTER USER 'street12_order_owner'@'%' REQUIRE SSL WITH MAX_USER_CONNECTIONS 5;
ALTER USER 'street12_order_reader'@'%' REQUIRE SSL WITH MAX_USER_CONNECTIONS 10;
GRANT SELECT, INSERT, UPDATE, DELETE ON street12_order.* TO 'street12_order'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES ON street12_order.*
  TO 'street12_order_owner'@'%';
GRANT SELECT ON street12_order.* TO 'street12_order_reader'@'%';

-- delivery: its workers and the API, its migrations, its people.
CREATE DATABASE IF NOT EXISTS street12_delivery CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE USER IF NOT EXISTS 'street12_delivery'@'%' ACCOUNT LOCK;
CREATE USER IF NOT EXISTS 'street12_delivery_owner'@'%' ACCOUNT LOCK;
CREATE USER IF NOT EXISTS 'street12_delivery_reader'@'%' ACCOUNT LOCK;
ALTER USER 'street12_delivery'@'%' REQUIRE SSL;
ALTER USER 'street12_delivery_owner'@'%' REQUIRE SSL WITH MAX_USER_CONNECTIONS 5;
ALTER USER 'street12_delivery_reader'@'%' REQUIRE SSL WITH MAX_USER_CONNECTIONS 10;
GRANT SELECT, INSERT, UPDATE, DELETE ON street12_delivery.* TO 'street12_delivery'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES ON street12_delivery.*
  TO 'street12_delivery_owner'@'%';
GRANT SELECT ON street12_delivery.* TO 'street12_delivery_reader'@'%';

-- marketing: its workers and the API, its migrations, its people.
CREATE DATABASE IF NOT EXISTS street12_marketing CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE USER IF NOT EXISTS 'street12_marketing'@'%' ACCOUNT LOCK;
CREATE USER IF NOT EXISTS 'street12_marketing_owner'@'%' ACCOUNT LOCK;
CREATE USER IF NOT EXISTS 'street12_marketing_reader'@'%' ACCOUNT LOCK;
ALTER USER 'street12_marketing'@'%' REQUIRE SSL;
ALTER USER 'street12_marketing_owner'@'%' REQUIRE SSL WITH MAX_USER_CONNECTIONS 5;
ALTER USER 'street12_marketing_reader'@'%' REQUIRE SSL WITH MAX_USER_CONNECTIONS 10;
GRANT SELECT, INSERT, UPDATE, DELETE ON street12_marketing.* TO 'street12_marketing'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES ON street12_marketing.*
  TO 'street12_marketing_owner'@'%';
GRANT SELECT ON street12_marketing.* TO 'street12_marketing_reader'@'%';

-- The engine: its history and its lists of workflows. It changes their schema itself, with each release.
CREATE DATABASE IF NOT EXISTS temporal CHARACTER SET utf8mb4;
CREATE DATABASE IF NOT EXISTS temporal_visibility CHARACTER SET utf8mb4;
CREATE USER IF NOT EXISTS 'temporal'@'%' ACCOUNT LOCK;
ALTER USER 'temporal'@'%' REQUIRE SSL;
GRANT ALL ON temporal.* TO 'temporal'@'%';
GRANT ALL ON temporal_visibility.* TO 'temporal'@'%';
