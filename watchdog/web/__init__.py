"""HTTP: `api` has the routes, `auth` who may, `answers` their form, `server` the listeners, `backend` their engine."""
