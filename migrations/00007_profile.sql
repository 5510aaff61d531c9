-- Profiles: what a bootstrap puts on the hosts of a cluster.
--
-- The binary before this one works with this schema: clusters that it makes have the
-- profile of the installation.

-- +goose Up

-- profile is the name of one, '' for that of the installation.
ALTER TABLE cluster ADD COLUMN profile text NOT NULL DEFAULT '';
