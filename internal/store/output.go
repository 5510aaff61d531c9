package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"commissaire/internal/fleet"
)

// MaxOutputRead bounds the bytes of one Output call.
const MaxOutputRead = 1 << 20

const (
	// The chunk goes in only if this call moved the position: two writers with
	// other ideas about chunks store every byte once.
	appendOutputSQL = `WITH moved AS (
			UPDATE step SET stored_to = $4::bigint + octet_length($5::bytea), stored_bytes = stored_bytes + octet_length($5),
				output_size = greatest(output_size, $4 + octet_length($5))
			WHERE tenant = $1 AND id = $2 AND state = 'running' AND stored_to = $3::bigint AND $4 >= $3
			RETURNING id, stored_to
		), chunk AS (
			INSERT INTO output (step_id, position, data) SELECT id, $4, $5 FROM moved WHERE octet_length($5) > 0
		)
		SELECT stored_to FROM moved`

	positionSQL = `SELECT state, stored_to FROM step WHERE tenant = $1 AND id = $2`

	// From the chunk that holds the offset, as many as reach the limit.
	outputSQL = `SELECT position, data FROM (
			SELECT position, data, sum(octet_length(data)) OVER (ORDER BY position) - octet_length(data) - greatest($2::bigint - $3::bigint, 0) AS before
			FROM output WHERE step_id = $1 AND position >= $3
		) chunks WHERE before < $4 ORDER BY position`

	// What is printed bit by bit comes in many chunks: more than a few are not read.
	outputEndsSQL = `SELECT s.id, e.data FROM step s, LATERAL (
			SELECT string_agg(data, '' ORDER BY position) AS data FROM (
				SELECT position, substr(data, greatest(octet_length(data) - $3::integer, 0) + 1) AS data
				FROM output WHERE step_id = s.id ORDER BY position DESC LIMIT 16
			) chunks
		) e WHERE s.tenant = $1 AND s.id = ANY ($2) AND e.data IS NOT NULL`

	firstChunkSQL = `SELECT coalesce((SELECT position FROM output WHERE step_id = $1 AND position <= $2 ORDER BY position DESC LIMIT 1), 0)`
)

// AppendOutput stores the bytes that a running step printed from offset on, if
// that is where the stored ones end. It gives the position up to which output
// is stored now: when somebody else was faster nothing is written, and the
// caller goes on from there. Repeating it is safe: the position lets every byte
// in once.
func (s *Store) AppendOutput(ctx context.Context, stepID, offset int64, data []byte) (stored int64, err error) {
	return s.append(ctx, stepID, offset, offset, data)
}

// AppendTail stores the last bytes of a step whose middle is left out: data
// begins at offset, and everything from from to offset is not kept. It is
// AppendOutput otherwise.
func (s *Store) AppendTail(ctx context.Context, stepID, from, offset int64, data []byte) (stored int64, err error) {
	if offset < from {
		return 0, fmt.Errorf("tail of step %d: offset %d lies before %d", stepID, offset, from)
	}
	return s.append(ctx, stepID, from, offset, data)
}

func (s *Store) append(ctx context.Context, stepID, from, offset int64, data []byte) (stored int64, err error) {
	if data == nil {
		data = []byte{}
	}
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		err := q.QueryRow(ctx, appendOutputSQL, s.tenant, stepID, from, offset, data).Scan(&stored)
		if !isNoRows(err) {
			return err
		}
		var state fleet.StepState
		err = q.QueryRow(ctx, positionSQL, s.tenant, stepID).Scan(&state, &stored)
		if err == nil && state.Ended() {
			return fleet.Errorf(fleet.Conflict, "step %d has ended (%s); its output is complete", stepID, state)
		}
		return orNotFound(err, "step", fmt.Sprint(stepID))
	})
	return stored, err
}

// Output gives what a step printed from offset on, at most limit bytes (0 or
// more than MaxOutputRead mean that). Offsets count all that was printed, so a
// chunk after bytes that were not kept has a larger one. An empty list means
// that nothing more is stored now.
func (s *Store) Output(ctx context.Context, stepID, offset int64, limit int) (chunks []fleet.OutputChunk, err error) {
	if limit <= 0 || limit > MaxOutputRead {
		limit = MaxOutputRead
	}
	offset = max(offset, 0)
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		var state fleet.StepState
		if err := q.QueryRow(ctx, stepStateSQL, s.tenant, stepID).Scan(&state); err != nil {
			return orNotFound(err, "step", fmt.Sprint(stepID))
		}
		var first int64
		if err := q.QueryRow(ctx, firstChunkSQL, stepID, offset).Scan(&first); err != nil {
			return err
		}
		chunks, err = collect(ctx, q, scanChunk, outputSQL, stepID, offset, first, limit)
		return err
	})
	return cut(chunks, offset, limit), err
}

// OutputEnd gives the last fleet.OutputEnd bytes that are stored of what a step printed,
// fewer where it printed bit by bit, none when none are.
func (s *Store) OutputEnd(ctx context.Context, stepID int64) (end []byte, err error) {
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		var id int64
		err := q.QueryRow(ctx, outputEndsSQL, s.tenant, []int64{stepID}, fleet.OutputEnd).Scan(&id, &end)
		if isNoRows(err) {
			return nil
		}
		return err
	})
	return lastOf(end), err
}

func lastOf(data []byte) []byte { return data[max(0, len(data)-fleet.OutputEnd):] }

func scanChunk(row pgx.CollectableRow) (c fleet.OutputChunk, err error) {
	err = row.Scan(&c.Offset, &c.Data)
	return c, err
}

// cut leaves out what lies before offset and beyond limit bytes.
func cut(chunks []fleet.OutputChunk, offset int64, limit int) []fleet.OutputChunk {
	out := []fleet.OutputChunk{}
	for _, c := range chunks {
		if before := offset - c.Offset; before > 0 {
			skip := min(before, int64(len(c.Data)))
			c.Offset, c.Data = c.Offset+skip, c.Data[skip:]
		}
		c.Data = c.Data[:min(len(c.Data), limit)]
		limit -= len(c.Data)
		if len(c.Data) > 0 {
			out = append(out, c)
		}
	}
	return out
}
