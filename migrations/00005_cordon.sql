-- Cordons: what a rollout has done to the node of a host, and has to undo.
--
-- The binary before this one works with this schema. It cordons nothing, and leaves
-- what is out to the sweep of the new one.

-- +goose Up

-- cordon is how far the cordon of the host's node is: out from before the node is
-- touched, restoring from before it is let go, restored when it is as it was before (or
-- was never touched, and never will be), left when its container manager was deleted
-- meanwhile. cordon_manager is whom to ask, also when the host is gone since.
ALTER TABLE host_run
    ADD COLUMN cordon text NOT NULL DEFAULT 'none',
    ADD COLUMN cordon_manager text COLLATE "C" NOT NULL DEFAULT '',
    ADD CONSTRAINT host_run_cordon CHECK (cordon IN ('none', 'out', 'restoring', 'restored', 'left')),
    ADD CONSTRAINT host_run_cordon_manager CHECK (cordon_manager <> '' OR cordon IN ('none', 'restored'));

CREATE INDEX host_run_cordoned ON host_run (tenant, cordon_manager) WHERE cordon IN ('out', 'restoring');
