-- A child lives on its parent's turn in a synchronized session: `lent` counts those who do. A run stands to a ticket as before, or 3 it
-- holds it until nobody lives on it any more, 4 it is a child that lives on it: see domain/lane.py.
ALTER TABLE lane ADD COLUMN lent INTEGER NOT NULL DEFAULT 0;

DROP INDEX ticket_granted;
CREATE INDEX ticket_held ON ticket (lane) WHERE state IN (2, 3);

-- `timed_at` is when it was decided at which moment a run is available, `made_up` by how much `available_at` is earlier than that, since
-- the clock was set back: see domain/due.py. Those whose moment counts again once the clock is right are found by an index that is nearly
-- always empty; runs that have taken tickets are not among them.
ALTER TABLE run ADD COLUMN timed_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE run ADD COLUMN made_up INTEGER NOT NULL DEFAULT 0;
UPDATE run SET timed_at = updated_at WHERE ended_at IS NULL;

CREATE INDEX run_made_up ON run (timed_at)
    WHERE made_up > 0 AND status IN ('queued', 'waiting') AND hold IS NULL AND (blocked = 2 OR ties & 8 = 0);
