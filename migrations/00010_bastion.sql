-- Bastions: hosts of the inventory through which others are reached.
--
-- The binary before this one works with this schema: it reaches every host straight, and
-- fails to delete a host that is a bastion of others.

-- +goose Up

-- bastion is an address, NULL for none: a host's own, or that of all hosts of a cluster.
ALTER TABLE host
    ADD COLUMN bastion text COLLATE "C",
    ADD CONSTRAINT host_bastion_fk FOREIGN KEY (tenant, bastion) REFERENCES host (tenant, address),
    ADD CONSTRAINT host_bastion_is_another CHECK (bastion <> address);

ALTER TABLE cluster
    ADD COLUMN bastion text COLLATE "C",
    ADD CONSTRAINT cluster_bastion_fk FOREIGN KEY (tenant, bastion) REFERENCES host (tenant, address);

CREATE INDEX host_of_bastion ON host (tenant, bastion) WHERE bastion IS NOT NULL;
CREATE INDEX cluster_of_bastion ON cluster (tenant, bastion) WHERE bastion IS NOT NULL;
