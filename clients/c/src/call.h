/** Sending a request of any operation; the generated functions are made of these. */

#ifndef BSI_CALL_H
#define BSI_CALL_H

#include "codec.h"

/** Send a request and wait for its result. `result` may be NULL; it is a pointer to a pointer, an integer or a boolean. */
bs_code bsi_call(
    bs_client *client, const struct operation *operation, const void *payload, const bs_request *request, void *result);

/** Send a request; 0 if it is refused. */
bs_ticket bsi_send(
    bs_client *client,
    const struct operation *operation,
    const void *payload,
    const bs_request *request,
    bs_callback callback,
    void *context);

/** Follow the result of a query. */
bs_code bsi_watch(bs_client *client, const struct operation *operation, const void *payload, bs_watch **watch);

#endif
