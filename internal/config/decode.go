package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"time"
)

// decode puts a value into a setting: text, as flags and the environment give
// it, or what a JSON or YAML file holds. No error quotes the value, which may be
// a secret.
func decode(setting reflect.Value, raw any) error {
	var err error
	switch target := setting.Addr().Interface().(type) {
	case *string:
		*target, err = toText(raw)
	case *int:
		*target, err = toInt(raw)
	case *bool:
		*target, err = toBool(raw)
	case *time.Duration:
		*target, err = toDuration(raw)
	case *[]string:
		*target, err = toTexts(raw)
	case *[]Plugin:
		*target, err = toPlugins(raw)
	default:
		panic(fmt.Sprintf("config: no setting is a %s", setting.Type()))
	}
	return err
}

func toText(raw any) (string, error) {
	if s, ok := raw.(string); ok {
		return s, nil
	}
	return "", errors.New("must be text")
}

func toInt(raw any) (int, error) {
	var text string
	switch v := raw.(type) {
	case int:
		return v, nil
	case json.Number:
		text = v.String()
	case string:
		text = v
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, errors.New("must be a whole number")
	}
	return n, nil
}

func toBool(raw any) (bool, error) {
	switch v := raw.(type) {
	case bool:
		return v, nil
	case string:
		if b, err := strconv.ParseBool(v); err == nil {
			return b, nil
		}
	}
	return false, errors.New("must be true or false")
}

func toDuration(raw any) (time.Duration, error) {
	if s, ok := raw.(string); ok {
		if d, err := time.ParseDuration(s); err == nil {
			return d, nil
		}
	}
	return 0, errors.New("must be a duration like 10s, 5m or 1h30m")
}

func toTexts(raw any) ([]string, error) {
	list, ok := raw.([]any)
	if !ok {
		return nil, errors.New("must be a list")
	}
	var out []string
	for i, entry := range list {
		s, err := toText(entry)
		if err != nil {
			return nil, fmt.Errorf("entry %d %w", i+1, err)
		}
		out = append(out, s)
	}
	return out, nil
}

// sorted gives the names of members in the order of the alphabet.
func sorted(members map[string]any) []string { return slices.Sorted(maps.Keys(members)) }
