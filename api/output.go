package api

import (
	"bytes"
	"context"

	"commissaire/api/gen"
	"commissaire/internal/fleet"
)

// outputPage is how many bytes an answer has when the request does not say.
const outputPage = 64 << 10

// GetStepOutput gives one stretch of output without a gap. The step is read
// before its output: when it had ended by then, all it printed is stored, so a
// client that sees Output-Ended and no bytes has everything.
func (h *handlers) GetStepOutput(ctx context.Context, r gen.GetStepOutputRequestObject) (gen.GetStepOutputResponseObject, error) {
	s, err := h.findStep(ctx, r)
	if err != nil {
		return nil, err
	}
	offset, limit := or(r.Params.Offset, 0), or(r.Params.Limit, outputPage)
	chunks, err := h.Store.Output(ctx, s.ID, offset, limit)
	if err != nil {
		return nil, err
	}
	from, data := stretch(chunks, offset, limit)
	return gen.GetStepOutput200ApplicationoctetStreamResponse{
		Body:          bytes.NewReader(data),
		ContentLength: int64(len(data)),
		Headers: gen.GetStepOutput200ResponseHeaders{
			OutputOffset:     from,
			OutputNextOffset: from + int64(len(data)),
			OutputSize:       s.OutputSize,
			OutputEnded:      s.State.Ended(),
		},
	}, nil
}

// findStep gives the wanted attempt of a step, or the latest.
func (h *handlers) findStep(ctx context.Context, r gen.GetStepOutputRequestObject) (fleet.Step, error) {
	steps, err := h.Store.Steps(ctx, r.Id, r.Address)
	if err != nil {
		return fleet.Step{}, err
	}
	var found fleet.Step
	for _, s := range steps {
		wanted := r.Params.Attempt == nil || s.Attempt == *r.Params.Attempt
		if s.Name == r.Step && wanted && s.Attempt > found.Attempt {
			found = s
		}
	}
	if found.Attempt == 0 {
		return fleet.Step{}, fleet.Errorf(fleet.NotFound,
			"operation %s has no such attempt of step %s on host %s; /api/v0/operations/%s/steps lists all", r.Id, r.Step, r.Address, r.Id)
	}
	return found, nil
}

// stretch joins chunks up to the first gap or the limit. from is the position
// of the first byte, which lies behind offset when the bytes there were not kept.
func stretch(chunks []fleet.OutputChunk, offset int64, limit int) (from int64, data []byte) {
	from = offset
	for _, c := range chunks {
		if len(data) == 0 && c.Offset > from {
			from = c.Offset
		}
		if c.Offset != from+int64(len(data)) {
			break
		}
		data = append(data, c.Data...)
		if len(data) >= limit {
			return from, data[:limit]
		}
	}
	return from, data
}
