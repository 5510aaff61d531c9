package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"commissaire/internal/authn"
	"commissaire/internal/config"
	"commissaire/internal/httptls"
	"commissaire/internal/store"
)

// CheckConfig checks what server and worker need before they start: the settings
// and the files they name. The error joins all that is wrong, also with the users,
// whom a server that runs waits for. It connects to nothing.
func CheckConfig(ctx context.Context, c *config.Config, log *slog.Logger) error {
	_, sealing := openSealer(c)
	_, bootstrap := bootstrapSettings(c)
	return errors.Join(sealing, bootstrap, checkSources(c), checkDatabase(ctx, c), checkTemporal(c, log), checkTLS(c, log), checkPlugins(ctx, c, log))
}

func checkSources(c *config.Config) error {
	_, err := hostSources(c)
	return err
}

func checkDatabase(ctx context.Context, c *config.Config) error {
	dsn, err := c.DSN()
	if err != nil {
		return err
	}
	db, err := store.Open(ctx, dsn, nil)
	if err == nil {
		db.Close()
	}
	return err
}

func checkTemporal(c *config.Config, log *slog.Logger) error {
	t, _, err := openTemporal(c, log, nil)
	if err == nil {
		t.Close()
	}
	return err
}

// checkTLS checks the CAs of clients apart from the certificate of the server.
func checkTLS(c *config.Config, log *slog.Logger) error {
	server := *c
	server.TLSClientVerifyFile = ""
	_, err := serverTLS(&server, log)
	if c.TLSClientVerifyFile != "" {
		err = errors.Join(err, httptls.CheckAuthorities(c.TLSClientVerifyFile, log))
	}
	return err
}

// noTokens stands in for the store. Building the plug-ins asks it nothing.
type noTokens struct{ authn.Tokens }

func checkPlugins(ctx context.Context, c *config.Config, log *slog.Logger) error {
	_, err := newChain(ctx, c, noTokens{}, log)
	for i, s := range pluginSpecs(c) {
		setting := "authentication-plugins"
		if i == 0 && c.UsersFile != "" {
			setting = "users-file"
		}
		if wrong := authn.CheckUsers(s); wrong != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", setting, wrong))
		}
	}
	return err
}
