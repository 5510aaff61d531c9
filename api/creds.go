package api

import (
	"context"
	"encoding/base64"
	"strings"

	"commissaire/api/gen"
	"commissaire/internal/fleet"
	"commissaire/internal/secret"
)

// GetHostCreds gives a private key away, so every reading is in the audit log.
func (h *handlers) GetHostCreds(ctx context.Context, r gen.GetHostCredsRequestObject) (gen.GetHostCredsResponseObject, error) {
	creds, err := h.Store.HostCreds(ctx, r.Address)
	if err != nil {
		return nil, err
	}
	return gen.GetHostCreds200JSONResponse{
		Address:    r.Address,
		SshPrivKey: base64.StdEncoding.EncodeToString(creds.PrivateKey.Reveal()),
		RemoteUser: creds.RemoteUser,
	}, nil
}

func (h *handlers) PutHostCreds(ctx context.Context, r gen.PutHostCredsRequestObject) (gen.PutHostCredsResponseObject, error) {
	if err := sameAddress(r.Address, map[string]string{"address": r.Body.Address}); err != nil {
		return nil, err
	}
	creds, err := parseCreds(r.Body.SshPrivKey, r.Body.RemoteUser)
	if err != nil {
		return nil, err
	}
	if err := h.Store.PutHostCreds(ctx, r.Address, creds); err != nil {
		return nil, err
	}
	return gen.PutHostCreds201JSONResponse{Address: r.Address, RemoteUser: creds.RemoteUser}, nil
}

// parseCreds reads a private key in base64 and a login name. No error repeats
// any of the key.
func parseCreds(key, user string) (secret.HostCreds, error) {
	user, err := fleet.ParseRemoteUser(user)
	if err != nil {
		return secret.HostCreds{}, err
	}
	text, err := base64.StdEncoding.Strict().DecodeString(key)
	if err != nil || strings.ContainsAny(key, "\r\n") { // the decoder skips line ends
		return secret.HostCreds{}, fleet.InvalidField("ssh_priv_key", "must be base64 on one line (base64 -w0 FILE)")
	}
	if err := secret.CheckPrivateKey(text); err != nil {
		return secret.HostCreds{}, err
	}
	return secret.HostCreds{RemoteUser: user, PrivateKey: secret.NewText(text)}, nil
}
