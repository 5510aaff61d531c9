package commctl

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"commissaire/api/client"
)

// handshakeTime is how long a host may take to show its key, from TCP on.
const handshakeTime = 15 * time.Second

var hostKeyView = view[client.HostKey]{
	name: func(k client.HostKey) string { return k.Fingerprint },
	columns: []column[client.HostKey]{
		{head: "HOST", cell: func(k client.HostKey) string { return k.Address }},
		{head: "FINGERPRINT", cell: func(k client.HostKey) string { return k.Fingerprint }},
		{head: "PINNED", cell: func(k client.HostKey) string { return shortTime(k.PinnedAt) }},
		{head: "KEY", wide: true, cell: func(k client.HostKey) string { return k.Key }},
	},
}

func (a *App) hostTrust() *cobra.Command {
	var yes bool
	var file string
	cmd := &cobra.Command{
		Use: "trust HOST", Short: "Accept another SSH host key of a host, for instance after it was installed anew", Args: cobra.ExactArgs(1),
		Long: `Accept another SSH host key of a host, for instance after it was installed anew.

The key is what the host shows to this machine now, without a login, or the one in
--key. Its fingerprint and that of the key that is pinned are shown, and you are
asked. Compare the fingerprint with what the host itself says at its console:

  ssh-keygen -l -f /etc/ssh/ssh_host_ed25519_key.pub

Whoever can pretend to be the host can show a key too: --yes is for networks that you
trust.`,
		Example: "  commctl host trust 192.0.2.10\n  commctl host trust --key ssh_host_ed25519_key.pub 192.0.2.10",
	}
	format := outputFlag(cmd, formatTable)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().StringVar(&file, "key", "", "`FILE` with the public host key, '-' for standard input, instead of what the host shows")
	return a.addressed(cmd, func(cmd *cobra.Command, address string, _ []string) error {
		ctx := cmd.Context()
		c, err := a.client()
		if err != nil {
			return err
		}
		host, err := fetch[client.Host](ctx, func(ctx context.Context) (*http.Response, error) { return c.GetHost(ctx, address) })
		if err != nil {
			return err
		}
		pinned, record, err := pinnedKey(ctx, c, address)
		if err != nil {
			return err
		}
		key, err := a.newHostKey(ctx, host, file, pinned)
		if err != nil {
			return err
		}
		if pinned != nil && string(pinned.Marshal()) == string(key.Marshal()) {
			fmt.Fprintf(a.Err, "%s is pinned already.\n", keyText(key))
			return renderOne(a, *format, hostKeyView, record)
		}
		was := "none"
		if pinned != nil {
			was = keyText(pinned)
		}
		fmt.Fprintf(a.Err, "Pinned:    %s\nPresented: %s\n", was, keyText(key))
		if !yes {
			if err := a.confirm("Accept the presented key? [y/N] "); err != nil {
				return err
			}
		}
		body := client.HostKeyPut{Key: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))}
		record, err = fetch[client.HostKey](ctx, func(ctx context.Context) (*http.Response, error) { return c.AcceptHostKey(ctx, address, body) })
		if err != nil {
			return err
		}
		return renderOne(a, *format, hostKeyView, record)
	})
}

func keyText(key ssh.PublicKey) string { return ssh.FingerprintSHA256(key) + " (" + key.Type() + ")" }

// confirm asks the person at the terminal. Error: they do not say yes, or there is
// nobody.
func (a *App) confirm(question string) error {
	answer, err := a.Ask(question, false)
	if errors.Is(err, errNoTerminal) {
		return fmt.Errorf("%w; --yes goes on without", err)
	}
	if err != nil {
		return err
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return exitf(exitUsage, "nothing was changed")
}

// pinnedKey gives the key that a host must present; nil when none is pinned.
func pinnedKey(ctx context.Context, c *client.ClientWithResponses, address string) (ssh.PublicKey, client.HostKey, error) {
	record, err := fetch[client.HostKey](ctx, func(ctx context.Context) (*http.Response, error) { return c.GetHostKey(ctx, address) })
	var known *exitError
	if errors.As(err, &known) && known.code == exitNotFound {
		return nil, record, nil
	}
	if err != nil {
		return nil, record, err
	}
	key, err := parseHostKey(record.Key)
	if err != nil {
		return nil, record, unreadable(err)
	}
	return key, record, nil
}

// parseHostKey reads a key as in authorized_keys, or a line of ssh-keyscan.
func parseHostKey(text string) (ssh.PublicKey, error) {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(text))
	if err != nil {
		return nil, errors.New("this is no public key such as in ssh_host_ed25519_key.pub")
	}
	return key, nil
}

// newHostKey is the key in a file, "" for what the host presents.
func (a *App) newHostKey(ctx context.Context, host client.Host, file string, pinned ssh.PublicKey) (ssh.PublicKey, error) {
	if file == "" {
		port := 22
		if host.Port != 0 {
			port = host.Port
		}
		key, err := presentedKey(ctx, net.JoinHostPort(host.Address, strconv.Itoa(port)), pinned)
		if err != nil {
			return nil, exitf(exitUnreachable, "the host shows no key: %w; --key takes one from a file", err)
		}
		return key, nil
	}
	text, err := a.readFile(ctx, file)
	if err != nil {
		return nil, fmt.Errorf("--key: %w", err)
	}
	key, err := parseHostKey(string(text))
	if err != nil {
		return nil, fmt.Errorf("--key: %w", err)
	}
	return key, nil
}

var errLooked = errors.New("only looked at the host key")

// presentedKey makes a handshake with sshd until it shows its key, and leaves. As a
// login of the server would, it asks for a key of the type that is pinned; a host
// that has none such shows another.
func presentedKey(ctx context.Context, address string, pinned ssh.PublicKey) (ssh.PublicKey, error) {
	if pinned != nil {
		key, err := look(ctx, address, algorithms(pinned.Type()))
		var unfit *ssh.AlgorithmNegotiationError
		if !errors.As(err, &unfit) {
			return key, err
		}
	}
	return look(ctx, address, append([]string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521}, algorithms(ssh.KeyAlgoRSA)...))
}

// algorithms are the signatures of a type of key; those of RSA have names of their
// own (RFC 8332).
func algorithms(keyType string) []string {
	if keyType == ssh.KeyAlgoRSA {
		return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return []string{keyType}
}

func look(ctx context.Context, address string, algorithms []string) (ssh.PublicKey, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	var shown ssh.PublicKey
	_, _, _, err = ssh.NewClientConn(conn, address, &ssh.ClientConfig{
		HostKeyAlgorithms: algorithms,
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			shown = key
			return errLooked
		},
	})
	switch {
	case shown != nil:
		return shown, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("no answer within %s", handshakeTime)
	}
	return nil, err
}
