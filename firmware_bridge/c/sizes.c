/* Compiled, never linked: `nm -S` tells from these what the structures take on a target. */
#include "soundpost_rtp.h"

extern char size_of_stream[sizeof(sp_stream)];
char size_of_stream[sizeof(sp_stream)];
extern char size_of_block[sizeof(sp_block)];
char size_of_block[sizeof(sp_block)];
extern char size_of_session[sizeof(sp_session)];
char size_of_session[sizeof(sp_session)];
