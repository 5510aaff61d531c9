package api

import (
	"context"
	"fmt"

	"commissaire/api/gen"
	"commissaire/internal/fleet"
)

func (h *handlers) ListMembers(ctx context.Context, r gen.ListMembersRequestObject) (gen.ListMembersResponseObject, error) {
	members, err := h.Store.Members(ctx, r.Name)
	if err != nil {
		return nil, err
	}
	return gen.ListMembers200JSONResponse(list(members)), nil
}

func (h *handlers) ReplaceMembers(ctx context.Context, r gen.ReplaceMembersRequestObject) (gen.ReplaceMembersResponseObject, error) {
	old, err := addresses("old", r.Body.Old)
	if err != nil {
		return nil, err
	}
	members, err := addresses("new", r.Body.New)
	if err != nil {
		return nil, err
	}
	c, ops, err := h.Store.ReplaceMembers(ctx, r.Name, old, members, requester(ctx))
	if err != nil {
		return nil, err
	}
	h.ordered(ctx, ops)
	return gen.ReplaceMembers200JSONResponse(clusterMembers(c)), nil
}

// addresses gives the canonical form of each address of a list.
func addresses(field string, given []string) ([]string, error) {
	all := make([]string, len(given))
	for i, a := range given {
		address, err := fleet.ParseAddress(a)
		if err != nil {
			return nil, blame(err, fmt.Sprintf("%s[%d]", field, i))
		}
		all[i] = address
	}
	return all, nil
}

func (h *handlers) GetMember(ctx context.Context, r gen.GetMemberRequestObject) (gen.GetMemberResponseObject, error) {
	is, err := h.Store.HasMember(ctx, r.Name, r.Address)
	if err != nil {
		return nil, err
	}
	if !is {
		return nil, fleet.Errorf(fleet.NotFound, "host %s is not a member of cluster %s", r.Address, r.Name)
	}
	return gen.GetMember200JSONResponse(list([]string{r.Address})), nil
}

func (h *handlers) AddMember(ctx context.Context, r gen.AddMemberRequestObject) (gen.AddMemberResponseObject, error) {
	ops, err := h.Store.AddMember(ctx, r.Name, r.Address, requester(ctx))
	if err != nil {
		return nil, err
	}
	h.ordered(ctx, ops)
	return gen.AddMember200JSONResponse(list([]string{r.Address})), nil
}

func (h *handlers) RemoveMember(ctx context.Context, r gen.RemoveMemberRequestObject) (gen.RemoveMemberResponseObject, error) {
	ops, err := h.Store.RemoveMember(ctx, r.Name, r.Address, requester(ctx))
	if err != nil {
		return nil, err
	}
	h.ordered(ctx, ops)
	return gen.RemoveMember200JSONResponse(list[string](nil)), nil
}
