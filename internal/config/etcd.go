package config

import "strings"

// etcdOptions are those of a storage handler of the original that say where etcd is.
// Records are in Postgres now, but flannel is still to be told.
var etcdOptions = []string{"server-url", "certificate-path", "certificate-key-path", "certificate-ca-path"}

// fromStorageHandlers gives the settings of etcd that the first handler of that type
// has. handlers is one, or a list; it may be anything.
func fromStorageHandlers(handlers any) map[string]any {
	list, ok := handlers.([]any)
	if !ok {
		list = []any{handlers}
	}
	for _, entry := range list {
		handler, _ := entry.(map[string]any)
		kind, _ := handler["type"].(string)
		if name, old := handler["name"].(string); old && kind == "" {
			kind = name // as the server of 2016 had it
		}
		if kind != "etcd" && !strings.HasSuffix(kind, ".etcd") {
			continue
		}
		found := map[string]any{}
		for written, value := range handler {
			name := strings.ReplaceAll(written, "_", "-")
			for _, option := range etcdOptions {
				if name == option && value != nil {
					found["etcd-"+option] = value
				}
			}
		}
		return found
	}
	return nil
}
