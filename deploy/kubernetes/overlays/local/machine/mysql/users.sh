# Run once, by the image, when the server has no data yet. The same users as in production: docs/data.md.
docker_process_sql <<SQL
CREATE DATABASE street12_$TEAM CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE USER 'street12_$TEAM'@'%' IDENTIFIED BY 'local';
GRANT SELECT, INSERT, UPDATE, DELETE ON street12_$TEAM.* TO 'street12_$TEAM'@'%';
CREATE USER 'street12_${TEAM}_owner'@'%' IDENTIFIED BY 'local-owner';
GRANT ALL ON street12_$TEAM.* TO 'street12_${TEAM}_owner'@'%';
SQL
